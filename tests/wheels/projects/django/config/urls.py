from django.urls import path

from shop.tickets import views

urlpatterns = [path("answer/", views.answer), path("answer-async/", views.answer_async), path("sum/", views.summary)]
